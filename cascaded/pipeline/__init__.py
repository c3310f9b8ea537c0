"""A request's life: the stages in order, the climb, and the bracket that always settles."""
