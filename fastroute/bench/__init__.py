"""The bench: what the gateway costs and how late it makes an answer, beside a constant answer, a provider asked directly
and its peers.

`subjects` and `peers` start what is measured, `rounds` runs the plan, `results` adds up, `report` and `page` tell it. The
provider (`_upstream.pyx`) and the load (`_load.pyx`) are compiled and stand in processes of their own.
"""
