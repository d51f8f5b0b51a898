"""`<call> calculator 3 * (4 + 5)`: arithmetic, and nothing but arithmetic.

For: sums in a conversation. Not for: code; names other than those below are
refused, and numbers are bounded, so that no call takes long. Start reading at
`evaluate`.
"""

import ast
import math
import operator
from collections.abc import AsyncIterator

from tml_jax import tools
from tml_jax.tools.background import Call, Failure

_CHARS = 200
_BITS = 4096  # of an integer, about 1,200 digits
_DIGITS = 12
_WRITTEN = {"×": "*", "·": "*", "÷": "/", "−": "-", "^": "**"}
_BINARY = {
  ast.Add: operator.add,
  ast.Sub: operator.sub,
  ast.Mult: operator.mul,
  ast.Div: operator.truediv,
  ast.FloorDiv: operator.floordiv,
  ast.Mod: operator.mod,
}
_UNARY = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_CONSTANTS = {"pi": math.pi, "e": math.e}
_FUNCTIONS = {
  "sqrt": math.sqrt,
  "exp": math.exp,
  "log": math.log,
  "log2": math.log2,
  "log10": math.log10,
  "sin": math.sin,
  "cos": math.cos,
  "tan": math.tan,
  "abs": abs,
  "round": round,
}


@tools.register("calculator")
class Calculator:
  """A tool."""

  timeout = 5.0

  async def run(self, call: Call) -> AsyncIterator[str]:
    yield write(evaluate(call.arguments))


def evaluate(text: str) -> int | float:
  """The value of an arithmetic expression.

  Raises:
    Failure: it has none, or only one that is too large.
  """
  if len(text) > _CHARS:
    raise Failure(f"an expression of more than {_CHARS} letters")
  for written, meant in _WRITTEN.items():
    text = text.replace(written, meant)
  try:
    value = _value(ast.parse(text.strip(), mode="eval").body)
  except Failure:
    raise
  except ZeroDivisionError as error:
    raise Failure("division by zero") from error
  except (OverflowError, RecursionError, MemoryError) as error:
    raise Failure("the number is too large") from error
  except (ArithmeticError, SyntaxError, TypeError, ValueError) as error:
    raise Failure(f"{text[:60]!r} is no arithmetic") from error
  return value


def write(value: int | float) -> str:
  """Whole numbers without a point, others to 12 digits."""
  if isinstance(value, float):
    return f"{value:.{_DIGITS}g}"
  return str(value)


def _value(node: ast.expr) -> int | float:
  match node:
    case ast.Constant(value=value) if type(value) in (int, float):
      return _bounded(value)
    case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
      return _UNARY[type(op)](_value(operand))
    case ast.BinOp(left=left, op=ast.Pow(), right=right):
      return _power(_value(left), _value(right))
    case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
      return _bounded(_BINARY[type(op)](_value(left), _value(right)))
    case ast.Name(id=name) if name in _CONSTANTS:
      return _CONSTANTS[name]
    case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if (
      name in _FUNCTIONS
    ):
      return _bounded(_FUNCTIONS[name](_value(argument)))
  raise Failure(f"{ast.unparse(node)[:60]!r} is no arithmetic")


def _power(base: int | float, exponent: int | float) -> int | float:
  """`base` ** `exponent`, refused before it takes long."""
  if isinstance(base, int) and isinstance(exponent, int):
    if base.bit_length() * abs(exponent) > _BITS and abs(base) > 1:
      raise OverflowError
  return _bounded(base**exponent)


def _bounded(value: int | float) -> int | float:
  if isinstance(value, complex):
    raise Failure("the result is not a real number")
  if isinstance(value, int):
    if value.bit_length() > _BITS:
      raise OverflowError
  elif not math.isfinite(value):
    raise OverflowError
  return value
