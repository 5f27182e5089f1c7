"""Makes model and adapter folders of other formats: LAVIS checkpoints, separate parts, merged adapters, shards."""
