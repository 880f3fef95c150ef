// What the two files that know Node (addon.cc, comm/comm_binding.cc) share.
#pragma once
#include <napi.h>

#include "dispatcher.h"

namespace ds {

// An Error with the failure's fields: kind, op, rank, peer; the text is its message.
Napi::Error failure_error(Napi::Env env, const Failure& failure);

// Throws an Error with a `code`, as native.ts lists them.
void raise(Napi::Env env, const char* code, const std::string& message);

// The address of `length` bytes of a buffer; throws and returns nullptr where they don't exist.
void* device_range(Napi::Env env, int handle, double offset, double length, const char* what);

// Adds the communicator's functions to the addon; comm/comm_binding.cc.
void init_comm(Napi::Env env, Napi::Object exports);

}  // namespace ds
