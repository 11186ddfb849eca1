"""Speed and latency benchmarks: `make bench`. They print and store figures; no test asserts them."""
