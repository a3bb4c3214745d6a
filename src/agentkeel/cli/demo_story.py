"""What the demonstration is about: a project with a bug, two prompts, and what the scripted model does about them."""

from __future__ import annotations

from collections.abc import Mapping

from agentkeel.testing.model_server import ByPrompt, Edit, Reply, Say, Shell, Think, Usage, Write

__all__ = ["FILES", "PROMPTS", "check_script", "model"]

_CART = '''\
"""What a customer pays."""


def total(prices, discount=0):
    """The sum of the prices, less `discount` percent."""
    return sum(prices) * (1 - discount / 10)
'''

_TEST_CART = """\
import unittest

from cart import total


class TotalTest(unittest.TestCase):
    def test_discount_is_percent(self):
        self.assertAlmostEqual(total([20, 30], discount=10), 45)


if __name__ == "__main__":
    unittest.main()
"""

_SHIPPING = '''\
    return sum(prices) * (1 - discount / 100)


def shipping(sum_to_pay):
    """Free from 50 on, else 4.90."""
    return 0 if sum_to_pay >= 50 else 4.90
'''

_TEST_SHIPPING = """\
import unittest

from cart import shipping


class ShippingTest(unittest.TestCase):
    def test_free_from_fifty_on(self):
        self.assertEqual(shipping(50), 0)
        self.assertEqual(shipping(49.99), 4.90)


if __name__ == "__main__":
    unittest.main()
"""

FILES: Mapping[str, str] = {"cart.py": _CART, "test_cart.py": _TEST_CART}
"""The project. Its one test fails."""

PROMPTS: Mapping[str, str] = {
    "claude": "A test of this project fails. Find the bug, mend it, and show that the test passes.",
    "codex": "Add shipping costs to cart.py: free from 50 on, else 4.90. Give them a test and run all tests.",
}
"""Who is asked what, in order."""

_PACE = 0.05


def check_script(python: str) -> str:
    """The program `check`, with which the agents and we run the project's tests."""
    return f'#!/bin/sh\nexec "{python}" -B -m unittest -q "$@"\n'


def model() -> ByPrompt:
    """The model of both agents."""
    fix = [
        Reply(
            Think("The test expects 45. Ten percent off 50 is 45, so the divisor is the suspect.", delay=_PACE),
            Say("I will run the test first, to see how it fails.", chunks=8, delay=_PACE),
            Shell("./check"),
            Usage(input_tokens=820, output_tokens=64),
        ),
        Reply(
            Say("The discount is in percent, but it is divided by 10. It must be 100.", chunks=8, delay=_PACE),
            Edit(
                "cart.py",
                "    return sum(prices) * (1 - discount / 10)\n",
                "    return sum(prices) * (1 - discount / 100)\n",
            ),
            Usage(input_tokens=310, output_tokens=88, cache_read_tokens=820),
        ),
        Reply(Say("Once more:", delay=_PACE), Shell("./check"), Usage(input_tokens=120, output_tokens=21)),
        Reply(
            Say("The test passes: the discount was divided by 10 where it is in percent.", chunks=8, delay=_PACE),
            Usage(input_tokens=90, output_tokens=24, cache_read_tokens=1_130),
        ),
    ]
    add = [
        Reply(
            Say("I will add `shipping` next to `total`, and a test of its own.", chunks=8, delay=_PACE),
            Edit("cart.py", "    return sum(prices) * (1 - discount / 100)\n", _SHIPPING),
            Usage(input_tokens=760, output_tokens=112),
        ),
        Reply(Write("test_shipping.py", _TEST_SHIPPING), Usage(input_tokens=140, output_tokens=96)),
        Reply(Shell("./check"), Usage(input_tokens=150, output_tokens=18)),
        Reply(
            Say("Both tests pass. Shipping is free from 50 on, else 4.90.", chunks=8, delay=_PACE),
            Usage(input_tokens=80, output_tokens=19, cache_read_tokens=900),
        ),
    ]
    return ByPrompt({PROMPTS["claude"]: fix, PROMPTS["codex"]: add})
