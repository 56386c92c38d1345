"""What people look at: boxes drawn on pages, plots, the table on the terminal and the HTML report."""
