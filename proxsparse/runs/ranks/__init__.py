"""A run on several processes that share the model, one a device: rank 0 leads, and the others follow.

Followers wait to be told of a call, and make it on their own part of the learner. So commands, clocks and files concern
rank 0 alone, and all ranks make the same calls in the same order, between which rank 0 may be paused or stopped.
"""
