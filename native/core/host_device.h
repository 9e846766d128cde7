// MB_HD marks functions that the host and a GPU both run: what defines a number stands once.
#pragma once

#ifdef __CUDACC__
#define MB_HD __host__ __device__
#else
#define MB_HD
#endif
