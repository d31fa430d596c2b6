"""What `cdp bench` runs: seeded load, measurements in processes of their own, and the page that shows the figures.

Nothing here is needed to run the product.
"""
