// The GPU that this process drives: which there are, opening one, its workspace and its fault slot.
#pragma once
#include <string>
#include <vector>

#include "kernel.h"

namespace ds {

// The devices of this machine; empty with `reason` ("no CUDA driver is installed", ...) where there are none.
std::vector<DeviceProperties> list_devices(std::string* reason);

// Makes device `index` this process's; once. nullptr, or why not.
const char* open_device(int index);
bool device_is_open();

size_t workspace_bytes();
// Gives workspace back. Only while the device is idle.
void release_workspace();

// The fault that kernels have reported since the last call, as a text, or empty; clears it. `op` receives the op's name.
std::string take_fault(std::string* op);

// Bytes free and in all on the device, as the driver sees them (other processes count).
void device_memory(size_t* free_bytes, size_t* total_bytes);

}  // namespace ds
