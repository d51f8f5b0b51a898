"""What synthetic voices say where no transcripts are installed.

For: about 200 short English phrases with ids; digits, letters of the phonetic
alphabet, command words and short sentences. Not for: other languages. The ids
of digits and `seconds` are those of the recorded prompts.
"""

import string

# The user asks with these for a later reply; in every split.
DELAYS = {
  "wait/1": "wait one",
  "wait/2": "wait two",
  "wait/3": "wait three",
}

# Words with which the user of a scenario asks for something, with the ids of
# the recorded prompts.
_ASKING = {
  "letters/plus": "plus",
  "digits/minus": "minus",
  "im-sorry": "i am sorry",
  "dictate/record": "record",
  "dictate/paused": "paused",
  "vm-first": "first",
  "vm-extension": "extension",
  "vm-message": "message",
  "vm-goodbye": "goodbye",
  "vm-INBOX": "new",
  "queue-reporthold": "hold time",
  "vm-Urgent": "urgent",
  "pbx-transfer": "transfer",
  "conf-thereare": "there are currently",
  "vm-for": "for",
  "vm-no": "no",
  "vm-pls-try-again": "please try again",
  "vm-received": "received",
  "auth-thankyou": "thank you",
  "privacy-thankyou": "thank you",
} | {f"letters/{letter}": letter for letter in string.ascii_lowercase}

_NUMBERS = """zero one two three four five six seven eight nine ten eleven
twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen
twenty""".split()

_WORDS = """alpha bravo charlie delta echo foxtrot golf hotel india juliet
kilo lima mike november oscar papa quebec romeo sierra tango uniform victor
whiskey yankee zulu hello goodbye please sorry thanks again stop start
welcome cancel transfer enabled disabled invalid urgent monday tuesday
wednesday thursday friday saturday sunday january february march april
july august september october december""".split()

_SENTENCES = """
open the door
close the window
turn on the light
turn off the music
call me later
thank you very much
good morning
good evening
see you tomorrow
how are you
i am fine
what time is it
where is the station
the train is late
take the next bus
wait for the green light
please hold the line
one moment please
press the red button
enter your number
leave a message
the line is busy
nobody is home
try again later
say it again
speak more slowly
repeat after me
that is correct
that is wrong
i do not know
maybe next week
the water is cold
the soup is hot
pass the salt
bring some bread
a cup of coffee
two cups of tea
a glass of milk
the dog is asleep
the cat ran away
birds sing at dawn
it may rain tonight
the sun is out
snow fell all day
the wind is strong
read the first page
write your name
count to ten
spell the word
listen to the song
play it once more
louder please
not so loud
go straight ahead
turn left here
turn right there
stop at the corner
cross the bridge
follow the river
climb the hill
the road is closed
park the car
lock the gate
find my keys
check the oven
set the table
wash the dishes
feed the fish
water the plants
sweep the floor
make the bed
pay the bill
send the letter
save the file
print the report
send it by mail
add it to the list
remove the last one
show me the map
take a picture
draw a circle
move it up
move it down
a little more
almost there
well done
no problem
of course
never mind
good night
""".strip().splitlines()


def _identifier(text: str) -> str:
  return text.replace(" ", "-")


PHRASES = (
  {f"digits/{i}": text for i, text in enumerate(_NUMBERS)}
  | {"seconds": "seconds"}
  | {_identifier(text): text for text in _WORDS + _SENTENCES}
  | DELAYS
  | _ASKING
)
