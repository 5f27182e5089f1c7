"""`python -m vlinstruct`, also under `accelerate launch -m` and `torchrun -m`."""

from vlinstruct.cli.main import main

if __name__ == "__main__":
    main()
