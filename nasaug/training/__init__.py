"""One training, whichever method and task it runs: recipe, job, length, loop, teacher, scoring, device."""
