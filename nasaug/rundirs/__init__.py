"""One folder a run: created or resumed, held by one process, its log, its result written last."""
