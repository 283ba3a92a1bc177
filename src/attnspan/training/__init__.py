"""One run: the LightningModule, its callbacks, and the steps from data to results."""
