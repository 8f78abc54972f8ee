"""KV-cache capacity: how many tokens and sequences fit beside the weights, per rank, for arrays of configurations."""

from mfuroof.capacity.evaluate import kv_capacity
from mfuroof.capacity.params import CapacityParams
from mfuroof.capacity.result import KvCapacity

__all__ = ["CapacityParams", "KvCapacity", "kv_capacity"]
