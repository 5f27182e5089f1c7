"""Speed here, side by side with what a user would write with transformers: same weights, same tokens, in turns.

bench        the verb: what is measured, and the measurement as a table and a record
answers      plain and optimized answers, with their table, record and plot
any_vlm      the same of any vision-language model of transformers
naive        such a model as one would use it with transformers alone
training     epochs of finetune, with their table and record
ranking      many candidates for one question, with its table and record
cold_start   whole processes, from the shell to an answer
theirs       transformers' arms
replay       what is written is laid down: our backend writes a script, with drafts right in a given share
workload     what is asked, written and learned
flops        the compute of a training, from the configuration
models       a backbone loaded twice; random weights in its shapes
timing       arms in turns, medians and quartiles
work         what a run reads, of weights and of tokens, and the least that it could take
against      a measurement beside an earlier one
"""
