"""What an edit did: leaks, refusals, what was kept, drift, capability and toxicity, before and after."""
