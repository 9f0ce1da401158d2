"""Training: the loop (:mod:`.loop` is the file to read first), optimizers, data parallelism, checkpoints."""
