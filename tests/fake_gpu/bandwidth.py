def expected(scene): return {}
