"""mini: a small InstructBLIP of our own, its world of drawn pictures, and how it is trained."""
