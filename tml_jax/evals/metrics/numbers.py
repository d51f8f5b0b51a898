"""Numbers in words: what an agent that counts aloud has said.

For: the counts of `timed`. Not for: the calculator. Five languages, as the
recorded prompts have them; the words do not contradict each other but for
Spanish "once" (11), which is no number in English.
"""

import re

_UNITS = {
  "en": "zero one two three four five six seven eight nine ten eleven twelve"
  " thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
  "fr": "zéro un deux trois quatre cinq six sept huit neuf dix onze douze"
  " treize quatorze quinze seize dix-sept dix-huit dix-neuf",
  "es": "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce"
  " trece catorce quince dieciseis diecisiete dieciocho diecinueve",
  "it": "zero uno due tre quattro cinque sei sette otto nove dieci undici"
  " dodici tredici quattordici quindici sedici diciassette diciotto"
  " diciannove",
  "ru": "ноль один два три четыре пять шесть семь восемь девять десять"
  " одиннадцать двенадцать тринадцать четырнадцать пятнадцать шестнадцать"
  " семнадцать восемнадцать девятнадцать",
}
_TENS = {
  "en": "twenty thirty forty fifty sixty seventy eighty ninety",
  "fr": "vingt trente quarante cinquante soixante",
  "es": "veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa",
  "it": "venti trenta quaranta cinquanta sessanta settanta ottanta novanta",
  "ru": "двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят"
  " девяносто",
}
_VALUES = {
  word: value
  for words in _UNITS.values()
  for value, word in enumerate(words.split())
} | {
  word: 10 * (i + 2)
  for words in _TENS.values()
  for i, word in enumerate(words.split())
}


def spoken(text: str) -> list[int]:
  """All numbers of a text, in order: "twenty one, 22" gives 21 and 22."""
  result: list[int] = []
  tens = False  # the last word was a multiple of ten that a unit may follow
  for word in re.findall(r"[\w-]+", text.casefold()):
    # Hyphens join words of one number in French and twenty-one in English.
    parts = [word] if word in _VALUES else word.split("-")
    for part in parts:
      value = int(part) if part.isdecimal() else _VALUES.get(part)
      if value is None:
        tens = False
      elif tens and 0 < value < 10:
        result[-1] += value
        tens = False
      else:
        result.append(value)
        tens = part.isalpha() and 20 <= value < 100
  return result
