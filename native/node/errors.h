// JavaScript errors with a `code` of NativeErrorCode (src/engine/binding.ts).
#pragma once
#include <napi.h>

#include <string>

#include "core/abi.h"

namespace mb::node {

Napi::Error make_error(Napi::Env env, int status, const std::string& text);

// Throws unless status is MB_OK, with the backend's text.
void check(Napi::Env env, const mb_backend* backend, int status);

// Throws MB_ARGUMENT with a printf-formatted text.
[[noreturn]] void throw_argument(Napi::Env env, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Argument i of a call as an integer within [lowest, highest]; throws MB_ARGUMENT otherwise.
int64_t integer(const Napi::CallbackInfo& info, size_t i, const char* name, int64_t lowest, int64_t highest);
double number(const Napi::CallbackInfo& info, size_t i, const char* name);
std::string text(const Napi::CallbackInfo& info, size_t i, const char* name);
Napi::Uint8Array byte_array(const Napi::CallbackInfo& info, size_t i, const char* name);
Napi::Float64Array double_array(const Napi::CallbackInfo& info, size_t i, const char* name);

}  // namespace mb::node
