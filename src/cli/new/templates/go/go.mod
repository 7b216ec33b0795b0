module example/{{name}}

go 1.21
