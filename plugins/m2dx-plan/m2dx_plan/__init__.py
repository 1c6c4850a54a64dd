"""`m2dx plan`: the nearest of three published settings as a recipe for your own data."""
