// What the two files that know Node (addon.cc, comm/comm_binding.cc) share.
#pragma once
#include <napi.h>

#include "stream.h"

namespace ds {

// An Error with the failure's fields: kind, op, rank, peer; the text is its message.
Napi::Error failure_error(Napi::Env env, const Failure& failure);

// Adds the communicator's functions to the addon; comm/comm_binding.cc.
void init_comm(Napi::Env env, Napi::Object exports);

}  // namespace ds
