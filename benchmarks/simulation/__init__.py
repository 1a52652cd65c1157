"""Search methods compared in simulated time on recorded learning curves; see `benchmarks/search_methods.py`."""
