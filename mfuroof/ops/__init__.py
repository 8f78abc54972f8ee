"""Operations of a forward pass: what a model runs on one GPU, and how long each takes by measurement."""
