"""How mini is trained, measured and exported: scripts beside the library, which does not know them."""
