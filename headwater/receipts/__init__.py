"""What proves a served value: receipts, and the results of the check that replays them."""
