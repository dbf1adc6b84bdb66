#!/bin/sh
# What edge-agent does, in three questions on the bundled demo model, without a network or a cloud.
# It stores everything in its own folder (.demo), so your own decisions do not change.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
EDGE_AGENT_HOME="$PWD/.demo"
export PATH EDGE_AGENT_HOME
unset EDGE_AGENT_MODEL EDGE_AGENT_ADAPTER EDGE_AGENT_TAU EDGE_AGENT_POLICY EDGE_AGENT_KEEP_DAYS EDGE_AGENT_CLOUD_URL EDGE_AGENT_CLOUD_MODEL EDGE_AGENT_CLOUD_KEY EDGE_AGENT_CLOUD_KEY_FILE
rm -rf "$EDGE_AGENT_HOME"

say() { printf '\n%s\n' "$1"; }
ask() {
    printf '\n  $ edge-agent ask'
    printf " '%s'" "$1"
    for option in "$2" "$3" "$4"; do printf " --option '%s'" "$option"; done
    printf '\n\n'
    edge-agent ask "$1" --option "$2" --option "$3" --option "$4"
}

say '1. A question that the device is sure about: the answer is kept.'
ask 'Whose pulse is the fastest: 44 Mr Eder, 37 Ms Dahl, 49 Ms Gray?' 'Mr Eder' 'Ms Dahl' 'Ms Gray'

say '2. One that it is not sure about: it would go to a cloud model. None is set up, so the answer is provisional and the question waits in a queue.'
ask 'A claim of 1994 is barred after 15 years. In which year?' 2007 2009 2011

say '3. The first one again: it is remembered, so the model is not even loaded.'
ask 'Whose pulse is the fastest: 44 Mr Eder, 37 Ms Dahl, 49 Ms Gray?' 'Mr Eder' 'Ms Dahl' 'Ms Gray'

say 'What was decided so far:'
printf '\n  $ edge-agent log\n\n'
edge-agent log
printf '\n  $ edge-agent queue list\n\n'
edge-agent queue list
say 'The answers come from a 4 M-parameter demo model that this repository trained itself. It shows how a question is handled, not what a FogGen model knows.'
