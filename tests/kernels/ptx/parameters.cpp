#include "tests/kernels/ptx/parameters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <sstream>

struct place {
    std::string name;
    long offset;
};

/* The address in `line`, an ld.param, by name; the line as it is where it names its parameter already. */
static std::string by_name(const std::string &line, const std::map<std::string, place> &registers)
{
    size_t open = line.find("[%"), close = line.find(']', open);
    if (open == std::string::npos)
        return line;
    std::string address = line.substr(open + 1, close - open - 1), base = address.substr(0, address.find('+'));
    long offset = base.size() < address.size() ? atol(address.c_str() + base.size() + 1) : 0;
    auto found = registers.find(base);
    if (found == registers.end()) {
        fprintf(stderr, "ptx: a parameter's address that is not constant: %s\n", line.c_str());
        abort();
    }
    const place &p = found->second;
    return line.substr(0, open + 1) + p.name + "+" + std::to_string(p.offset + offset) + line.substr(close);
}

std::string parameters_by_name(const std::string &ptx)
{
    std::map<std::string, place> registers; /* each is written once, as nvcc's are */
    std::istringstream lines(ptx);
    std::string line, out;
    char to[64], from[1024];
    long constant;
    while (std::getline(lines, line)) {
        if (line.find(".entry") != std::string::npos || line.find(".func") != std::string::npos)
            registers.clear();
        else if (sscanf(line.c_str(), " mov.%*[bu]64 %63[^,], %1023[^;];", to, from) == 2 && strstr(from, "_param_"))
            registers[to] = {from, 0};
        else if (sscanf(line.c_str(), " add.s64 %63[^,], %1023[^,], %ld;", to, from, &constant) == 3 &&
                 registers.count(from))
            registers[to] = {registers[from].name, registers[from].offset + constant};
        out += line.find("ld.param") == std::string::npos ? line : by_name(line, registers);
        out += '\n';
    }
    return out;
}
