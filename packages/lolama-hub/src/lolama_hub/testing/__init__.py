"""Test equipment: a stand-in of the Hub on this machine, with faults to order.

It serves whoever tests something that downloads; nothing in lolama itself imports it.
"""
