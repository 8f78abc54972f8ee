"""Raw kernels: flat arrays in, preallocated arrays out, no questions asked.

Everything here is callable from other people's ``@njit`` code. Inputs are validated by the layers above.
"""
