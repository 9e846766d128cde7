#include "node/errors.h"

#include <cmath>
#include <cstdarg>
#include <cstdio>

namespace mb::node {
namespace {

const char* code_of(int status) {
  switch (status) {
    case MB_ERR_ARGUMENT:
      return "MB_ARGUMENT";
    case MB_ERR_MEMORY:
      return "MB_MEMORY";
    case MB_ERR_LIBRARY:
      return "MB_LIBRARY";
    case MB_ERR_PEER:
      return "MB_PEER";
    case MB_ERR_TIMEOUT:
      return "MB_TIMEOUT";
    case MB_ERR_MISMATCH:
      return "MB_MISMATCH";
    case MB_ERR_UNSUPPORTED:
      return "MB_UNSUPPORTED";
    default:
      return "MB_DEVICE";
  }
}

}  // namespace

Napi::Error make_error(Napi::Env env, int status, const std::string& text) {
  Napi::Error error = Napi::Error::New(env, text);
  error.Set("code", Napi::String::New(env, code_of(status)));
  return error;
}

void check(Napi::Env env, const mb_backend* backend, int status) {
  if (status != MB_OK) throw make_error(env, status, backend->last_error());
}

void throw_argument(Napi::Env env, const char* format, ...) {
  char message[512];
  va_list args;
  va_start(args, format);
  vsnprintf(message, sizeof(message), format, args);
  va_end(args);
  throw make_error(env, MB_ERR_ARGUMENT, message);
}

double number(const Napi::CallbackInfo& info, size_t i, const char* name) {
  if (!info[i].IsNumber()) throw_argument(info.Env(), "argument %s must be a number", name);
  return info[i].As<Napi::Number>().DoubleValue();
}

int64_t integer(const Napi::CallbackInfo& info, size_t i, const char* name, int64_t lowest, int64_t highest) {
  const double x = number(info, i, name);
  if (!(x >= static_cast<double>(lowest) && x <= static_cast<double>(highest)) || x != std::floor(x)) {
    throw_argument(info.Env(), "argument %s is %g, expected an integer from %lld to %lld", name, x,
                   static_cast<long long>(lowest), static_cast<long long>(highest));
  }
  return static_cast<int64_t>(x);
}

std::string text(const Napi::CallbackInfo& info, size_t i, const char* name) {
  if (!info[i].IsString()) throw_argument(info.Env(), "argument %s must be a string", name);
  return info[i].As<Napi::String>().Utf8Value();
}

Napi::Uint8Array byte_array(const Napi::CallbackInfo& info, size_t i, const char* name) {
  if (!info[i].IsTypedArray() || info[i].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw_argument(info.Env(), "argument %s must be a Uint8Array", name);
  }
  return info[i].As<Napi::Uint8Array>();
}

Napi::Float64Array double_array(const Napi::CallbackInfo& info, size_t i, const char* name) {
  if (!info[i].IsTypedArray() || info[i].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array) {
    throw_argument(info.Env(), "argument %s must be a Float64Array", name);
  }
  return info[i].As<Napi::Float64Array>();
}

}  // namespace mb::node
