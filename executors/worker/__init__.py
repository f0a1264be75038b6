"""Workers: one module per framework, run in the framework's own interpreter (`python -I executors/worker FRAMEWORK`).

They import the standard library, numpy and their framework only, never the rest of this project: an isolated
environment has nothing else.
"""
