"""From the requests of a policy to a patch: statistics, forms, values and the write."""
