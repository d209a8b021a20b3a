"""The mask learner: one explicit step, state that can be saved, a strength that can be changed."""
