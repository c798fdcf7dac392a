"""Alarms on their way to a person: by a webhook or a command, at most once where one may have arrived."""
