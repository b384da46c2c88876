#!/bin/sh
# Runs in the published tree. Replace the last line by what the application needs.
set -eu
if [ -n "$GVR_CHANGED_FILES" ]; then
  changed=$(tr '\0' '\n' < "$GVR_CHANGED_FILES" | wc -l)
  echo "$((changed / 2)) files changed since $GVR_PREVIOUS_COMMIT"
fi
echo "readers see $GVR_COMMIT"
