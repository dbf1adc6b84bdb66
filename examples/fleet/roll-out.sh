#!/bin/sh
# Rolls out a model to a fleet: make a bundle once and pull it on every device, without a network.
# Here each device is a folder; on real devices, copy the bundle and run the last two commands there, as the service's user.
# Usage: examples/fleet/roll-out.sh MODEL.gguf FOLDER
set -eu
model=$1 folder=$2
mkdir -p "$folder"

# Once, on your computer: the model and the settings that all devices share. A bundle never contains a key.
edge-agent bundle "$model" --out "$folder/fleet.bundle" --tau 0.75 --policy prefer_local

# On each device.
for device in kiosk-1 kiosk-2; do
    EDGE_AGENT_HOME="$folder/$device"
    export EDGE_AGENT_HOME
    edge-agent pull "$folder/fleet.bundle"
    edge-agent ask 'What is 12 + 7?' --option 18 --option 19 --option 24
done
