"""Nothing is lost and nothing is done twice: kills, rubbish, reloads and several processes at once."""
