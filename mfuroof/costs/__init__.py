"""Cost families: each binds a model, a GPU and a parallelism to a few flat arrays that price steps."""
