"""What a device wants done otherwise than the networks' layers say it.

The networks ask ``ways.py``; ``cpu.py`` and ``gpu.py`` answer for their devices.
"""
