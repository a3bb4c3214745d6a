"""Runs the code on standard input as a reader would type it, `await` at top level included. Not a test.

The argument is the page it came from: a traceback shows the page's own line.
"""

import ast
import asyncio
import inspect
import sys

page = sys.argv.pop(1)
code = compile(sys.stdin.read(), page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "__main__"}
if code.co_flags & inspect.CO_COROUTINE:
    asyncio.run(eval(code, names))
else:
    exec(code, names)
