"""Ways into other simulators: files they read, and classes they call.

=====================  ==========================================================================
`export`               files: our own npz, NVIDIA Dynamo, LLMServingSim, splitwise-sim, Vidur
`vidur`                plug-in for Vidur, and ``python -m mfuroof.adapters.vidur``
`sr_sim`               a GPU profile for vllm-sr-sim
`splitwise`            a performance model for splitwise-sim
=====================  ==========================================================================

No simulator is imported before its adapter is used; none needs a change of its source.
"""
