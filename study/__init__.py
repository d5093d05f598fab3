"""Result rows -> report and figures with the paper's values beside; and what a run will cost."""
