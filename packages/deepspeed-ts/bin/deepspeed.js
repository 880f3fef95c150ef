#!/usr/bin/env node
// The launcher's command, for package managers that link only the commands of direct dependencies.
import '@deepspeed-ts/launcher/cli';
