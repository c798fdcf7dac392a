"""What is decided is right: estimates, alarms and verdicts against the truth, where the truth is known."""
