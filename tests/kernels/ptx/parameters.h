/* tests/kernels/ptx/parameters.h - kernel parameters by name, for an interpreter that knows no other way to them.
 *
 * PTX lets a kernel take the address of a parameter with mov and read it by ld.param through the register ("Kernel
 * Function Parameters" in the PTX ISA). nvcc does so where a structure is passed on by reference, as attention.cu does.
 * ptxsim takes such an address for one among the arguments of a call, and reads zeros there. */
#ifndef VL_TESTS_PTX_PARAMETERS_H
#define VL_TESTS_PTX_PARAMETERS_H

#include <string>

/* The same module with `ld.param.u64 %a, [%b+8]` as `ld.param.u64 %a, [name+24]`, where %b is the address of `name`
 * plus a constant. */
std::string parameters_by_name(const std::string &ptx);

#endif
