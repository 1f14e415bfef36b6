"""Computations that some devices do differently from the plain layers of the networks.

The networks ask ``ways.py``; ``cpu.py`` and ``gpu.py`` answer for their devices.
"""
