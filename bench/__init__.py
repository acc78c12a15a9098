"""Measurements that anyone can repeat. Ratios taken in one run count; absolute times are the machine's."""
